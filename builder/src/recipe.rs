//! To be written: recipe.
