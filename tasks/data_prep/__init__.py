"""From raw records to split, cleaned and audited data."""
