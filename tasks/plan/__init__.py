"""What memory a flow's stages need, and which devices hold them, worked out before anything is loaded."""
