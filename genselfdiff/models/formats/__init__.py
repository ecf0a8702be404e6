"""What a model file is written as: a module for each format, which writes and reads it."""
