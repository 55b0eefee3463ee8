"""From prompts and control maps to one wide image."""
