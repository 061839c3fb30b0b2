"""Made content of batches: a file for each kind of column, with a `CONTENT` for it."""
