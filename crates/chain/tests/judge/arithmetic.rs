//! The referee's arithmetic against `engine::ops`, function by function, on random and extreme numbers.
