"""GGUF files, the format of llama.cpp: read, written, and described."""
