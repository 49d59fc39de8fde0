//! Kernel bundles, root file systems, package manifests: what an image is made of.
