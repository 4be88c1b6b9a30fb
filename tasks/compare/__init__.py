"""All sheets of a run side by side: win rates, alignment tax, plots, the report page."""
