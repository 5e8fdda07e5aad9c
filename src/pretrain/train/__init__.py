"""Steps until the last one."""
