//! A frame as the gate reads it: every view, and every answer that can be made to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet::relay::wire::ethernet::{Frame, Header};
use mossnet::relay::wire::icmp::{Message, Notice};
use mossnet::relay::wire::ip::Packet;
use mossnet::relay::wire::reset::reset;
use mossnet::relay::wire::tcp::{Segment, SynOptions};
use mossnet::relay::wire::udp::Datagram;

fuzz_target!(|bytes: &[u8]| {
    let Ok(frame) = Frame::parse(bytes) else {
        return;
    };
    let _ = Header::answering(&frame).emit();
    let Ok(packet) = Packet::parse(frame.payload()) else {
        return;
    };
    assert!(packet.payload().len() <= packet.bytes().len());
    if let Ok(segment) = Segment::of(&packet) {
        let _ = (
            segment.is_first_syn(),
            segment.sequence_length(),
            segment.timestamps(),
            segment.is_intact(&packet),
            SynOptions::parse(segment.options()),
        );
    }
    if let Ok(Some(answer)) = reset(&packet) {
        let answer = Packet::parse(&answer).expect("our own reset parses");
        assert_eq!(answer.addresses(), packet.addresses().reversed());
        assert!(reset(&answer).expect("it is TCP").is_none());
    }
    if let Ok(datagram) = Datagram::of(&packet) {
        assert!(datagram.payload().len() < packet.payload().len());
        let _ = datagram.verify_checksum(packet.addresses());
    }
    if let Ok(message) = Message::of(&packet) {
        let _ = message.verify_checksum(packet.addresses());
        if let Some(echo) = message.echo_request() {
            let _ = echo.emit_reply(packet.addresses().reversed());
        }
    }
    if let Some(error) = (Notice::TooBig { mtu: 1280 }).about(&packet, packet.destination()) {
        assert!(error.len() <= 1280);
        let error = Packet::parse(&error).expect("our own error parses");
        let message = Message::of(&error).expect("it is ICMP");
        assert!(message.is_error() && message.verify_checksum(error.addresses()));
        assert!(packet.bytes().starts_with(message.payload()));
        assert!(Notice::NoRoute.about(&error, error.source()).is_none());
    }
});
