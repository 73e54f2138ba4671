"""Audio bytes in, a unit-length speaker embedding and a speech report out; no torch, no HTTP."""
