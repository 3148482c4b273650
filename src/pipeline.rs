//! Wires every stage: the whole data path on one screen.
