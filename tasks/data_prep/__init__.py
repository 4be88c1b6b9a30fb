"""From raw records to split, cleaned and audited data."""

from tasks.engine.declared import Stage

prepare_data = Stage("data preparation", "tasks.data_prep.task:prepare_data")
