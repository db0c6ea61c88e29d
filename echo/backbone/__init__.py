"""The frozen networks: causal Wan transformer, text encoder, latent codec."""
