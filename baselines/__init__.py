"""Cache policies that Echo-Forcing is compared with, one file each."""
