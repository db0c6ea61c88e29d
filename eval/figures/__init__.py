"""The paper's figures: their numbers and drawings. `eval.figures.command` is their command line."""
