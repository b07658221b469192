//! The development stack: the whole system on one machine.

pub mod bedrock;
