"""Training again as data arrives: which rows are new, and the versions of the training set."""
