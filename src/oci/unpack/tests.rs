//! Layers, hostile and not.
