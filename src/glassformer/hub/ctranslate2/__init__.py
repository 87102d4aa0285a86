"""CTranslate2 model folders: read only."""
