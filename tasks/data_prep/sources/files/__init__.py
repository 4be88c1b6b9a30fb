"""Files that hold rows, by kind; ``files.kinds`` lists them."""
