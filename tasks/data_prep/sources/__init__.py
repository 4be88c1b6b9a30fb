"""Where data comes from: one module per source, all returning the same ``SourceRecords``."""
