"""Level 4: six primitives (note, table, heat map, curves, points, tokens) and their renderers."""
