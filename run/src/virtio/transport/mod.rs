//! How drivers reach virtio devices.
