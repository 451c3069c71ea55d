"""Pure parts: words, formats and plans. Nothing here does input or output."""
