//! terminals
