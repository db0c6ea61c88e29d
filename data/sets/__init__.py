"""Prompt sets of other benchmarks, and tables of prompts by their columns."""
