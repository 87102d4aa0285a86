"""Level 2: raw data to arrays and back. A processor is saved in the model folder as Hugging Face does."""
