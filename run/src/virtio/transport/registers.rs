//! The common configuration structure (4.1.4.3): a table of fields.

/// Bytes of the structure.
pub(super) const BYTES: usize = 0x40;

/// Fields by offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    DeviceFeatureSelect,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    Status,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    /// An address and which half of it: 0 low, 32 high.
    Descriptors,
    DriverArea,
    DeviceArea,
}

/// A write that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Write {
    pub field: Field,
    pub value: u64,
    /// The bits of a 64-bit field that the write covers.
    pub mask: u64,
}

/// (offset, bytes, field) of all that a driver may write.
const WRITABLE: [(u64, usize, Field); 12] = [
    (0x00, 4, Field::DeviceFeatureSelect),
    (0x08, 4, Field::DriverFeatureSelect),
    (0x0C, 4, Field::DriverFeature),
    (0x10, 2, Field::ConfigVector),
    (0x14, 1, Field::Status),
    (0x16, 2, Field::QueueSelect),
    (0x18, 2, Field::QueueSize),
    (0x1A, 2, Field::QueueVector),
    (0x1C, 2, Field::QueueEnable),
    (0x20, 8, Field::Descriptors),
    (0x28, 8, Field::DriverArea),
    (0x30, 8, Field::DeviceArea),
];

/// Understands a write: of a whole field, or of half of a 64-bit one. Others are not allowed to a driver (4.1.3.1) and
/// do nothing.
pub(super) fn decode(offset: u64, data: &[u8]) -> Option<Write> {
    let mut bytes = [0; 8];
    bytes.get_mut(..data.len())?.copy_from_slice(data);
    let value = u64::from_le_bytes(bytes);
    let (start, width, field) =
        WRITABLE.into_iter().find(|(start, width, _)| (*start..*start + *width as u64).contains(&offset))?;
    match (width, data.len(), offset - start) {
        (8, 4, 0) => Some(Write { field, value, mask: 0xffff_ffff }),
        (8, 4, 4) => Some(Write { field, value: value << 32, mask: !0xffff_ffff }),
        (width, len, 0) if width == len => Some(Write { field, value, mask: !0 }),
        _ => None,
    }
}

/// What a read shows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Snapshot {
    pub device_feature_select: u32,
    pub device_feature: u32,
    pub driver_feature_select: u32,
    pub driver_feature: u32,
    pub config_vector: u16,
    pub queues: u16,
    pub status: u8,
    pub generation: u8,
    pub queue_select: u16,
    pub queue_size: u16,
    pub queue_vector: u16,
    pub queue_enable: u16,
    pub queue_notify_off: u16,
    pub descriptors: u64,
    pub driver_area: u64,
    pub device_area: u64,
}

impl Snapshot {
    /// The structure's bytes. What follows `queue_device` belongs to features that are not offered: zeros.
    pub fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let fields = (self.device_feature_select.to_le_bytes().into_iter())
            .chain(self.device_feature.to_le_bytes())
            .chain(self.driver_feature_select.to_le_bytes())
            .chain(self.driver_feature.to_le_bytes())
            .chain(self.config_vector.to_le_bytes())
            .chain(self.queues.to_le_bytes())
            .chain([self.status, self.generation])
            .chain(self.queue_select.to_le_bytes())
            .chain(self.queue_size.to_le_bytes())
            .chain(self.queue_vector.to_le_bytes())
            .chain(self.queue_enable.to_le_bytes())
            .chain(self.queue_notify_off.to_le_bytes())
            .chain(self.descriptors.to_le_bytes())
            .chain(self.driver_area.to_le_bytes())
            .chain(self.device_area.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_other_widths_or_places_mean_nothing() {
        for (offset, len) in [
            (0x00, 1),
            (0x00, 8),
            (0x01, 4),
            (0x04, 4),
            (0x12, 2),
            (0x14, 2),
            (0x14, 4),
            (0x15, 1),
            (0x22, 4),
            (0x24, 8),
            (0x26, 2),
            (0x3A, 2),
            (0xfff, 1),
            (u64::MAX, 8),
        ] {
            assert_eq!(decode(offset, &vec![0xff; len]), None, "{offset:#x} {len}");
        }
        assert_eq!(decode(0, &[]), None);
        assert_eq!(decode(0, &[0; 9]), None);
    }

    #[test]
    fn an_address_is_written_whole_or_by_halves() {
        let high = decode(0x2C, &[1, 0, 0, 0]).unwrap();
        assert_eq!(high, Write { field: Field::DriverArea, value: 1 << 32, mask: !0xffff_ffff });
        let whole = decode(0x30, &[1; 8]).unwrap();
        assert_eq!(whole, Write { field: Field::DeviceArea, value: 0x0101_0101_0101_0101, mask: !0 });
    }

    #[test]
    fn fields_read_where_the_specification_puts_them() {
        let bytes =
            Snapshot { status: 0x0f, queue_size: 0x1234, descriptors: 7, device_area: 9, ..Snapshot::default() }
                .bytes();
        assert_eq!((bytes[0x14], bytes[0x18], bytes[0x19], bytes[0x20], bytes[0x30]), (0x0f, 0x34, 0x12, 7, 9));
    }
}
