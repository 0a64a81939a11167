"""What exported files and those who read them agree on."""

SCHEMA = 2  # of a file's metadata; version 1 told neither its own number nor ONE_BY_ONE
ONE_BY_ONE = "one by one"  # of a file that finds ranges at every call: it answers a picture by what is beside it
