"""What a block attends to: the plan (integers), the store (raw keys and values), the window (rotated, assembled)."""
