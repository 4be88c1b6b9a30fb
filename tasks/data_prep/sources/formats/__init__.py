"""The layouts of rows that are understood, by role; ``formats.table`` lists them."""
