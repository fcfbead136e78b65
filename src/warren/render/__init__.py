"""Values as text for people and programs: commands, tables, topology pictures."""
