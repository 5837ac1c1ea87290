//! The language of FLUIDOS: kinds, market, intents. Pure: no I/O, no clock, no async.
