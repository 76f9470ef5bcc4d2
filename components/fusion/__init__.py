"""New models out of old ones: fused from several, or with parts inherited across architectures."""
