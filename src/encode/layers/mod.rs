//! The codec "layers".

mod search;
