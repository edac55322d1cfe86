"""Reports on runs: how they compare, why an item is recommended, and a page about one."""
