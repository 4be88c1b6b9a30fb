"""Who ranks responses: one file a labeler, all behind ``labeler.Labeler``; ``hired`` finds them by name."""
