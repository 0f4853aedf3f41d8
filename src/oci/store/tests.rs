//! The store, with image files made here.
