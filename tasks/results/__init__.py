"""What evaluations are made of: sheets, intervals, figures, judges, the comparison and its words."""
