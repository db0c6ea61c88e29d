"""The paper's figures: what each shows in numbers, and how it is drawn. `eval.figures.command` is their command line."""
