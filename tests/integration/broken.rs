use crate::support::suite::suite;
suite![];
