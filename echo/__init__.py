"""Echo-Forcing's scene memory, and the causal video diffusion engine that every cache policy shares."""
