"""Text encoders and codecs, of the embedded world and of Wan2.1."""
