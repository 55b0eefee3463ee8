"""The frontier of cost, coherence, control and fidelity: presets against the published algorithms."""
