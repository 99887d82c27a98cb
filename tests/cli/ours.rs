//! Called as `pgherdctl`.
