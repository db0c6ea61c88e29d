"""What stands around the network: text encoders and codecs, the embedded ones and those of Wan2.1."""
