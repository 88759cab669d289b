// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/xattr_rules.h"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include "support/byte_order.h"

using namespace mkvirtfs;

namespace {

struct AclEntry {
  std::uint16_t tag;
  std::uint16_t permissions;
  std::uint32_t id = 0xffffffff;
};

std::string acl(const std::vector<AclEntry>& entries) {
  std::string value(4 + 8 * entries.size(), '\0');
  const auto bytes = std::as_writable_bytes(std::span(value));
  store_le(bytes, 0, std::uint32_t{2});
  for (std::size_t i = 0; i < entries.size(); ++i) {
    store_le(bytes, 4 + 8 * i, entries[i].tag);
    store_le(bytes, 6 + 8 * i, entries[i].permissions);
    store_le(bytes, 8 + 8 * i, entries[i].id);
  }
  return value;
}

std::string normalised(const XattrRules& rules, std::string_view name, std::string value) {
  REQUIRE(rules.normalise(name, value));
  return value;
}

}  // namespace

TEST_CASE("attributes of users and of the system are kept, the host's own are not") {
  for (const char* kept : {"user.comment", "trusted.x", "security.capability", "security.selinux",
                           "system.posix_acl_access", "system.posix_acl_default",
                           "trusted.overlay.opaque", "user.overlay.redirect", "security.evm"}) {
    CAPTURE(kept);
    CHECK(XattrRules::keeps_name(kept));
  }
  for (const char* dropped :
       {"system.nfs4_acl", "btrfs.compression", "ceph.dir.rbytes", "trusted.SGI_ACL_FILE",
        "trusted.overlay.origin", "user.overlay.nlink", "users.x", "user", ""}) {
    CAPTURE(dropped);
    CHECK_FALSE(XattrRules::keeps_name(dropped));
  }
  const XattrRules rules({}, {}, 07777);
  std::string hmac = "\x02...";
  CHECK_FALSE(rules.normalise("security.evm", hmac));
  std::string portable = "\x05...";
  CHECK(rules.normalise("security.evm", portable));
}

TEST_CASE("ids inside ACLs are mapped, in access and default ACLs alike") {
  const XattrRules rules(IdMap({{1000, 5000, 10}}), IdMap({{1000, 7000, 1}}), 07777);
  const std::string before =
      acl({{1, 6}, {2, 4, 1001}, {2, 4, 2000}, {4, 4}, {8, 7, 1000}, {16, 7}, {32, 4}});
  const std::string after =
      acl({{1, 6}, {2, 4, 5001}, {2, 4, 2000}, {4, 4}, {8, 7, 7000}, {16, 7}, {32, 4}});
  CHECK(normalised(rules, "system.posix_acl_access", before) == after);
  CHECK(normalised(rules, "system.posix_acl_default", before) == after);
  CHECK(normalised(rules, "user.posix_acl_access", before) == before);
}

TEST_CASE("the mode mask reaches the access ACL as chmod would") {
  const XattrRules rules({}, {}, 0750);
  CHECK(normalised(rules, "system.posix_acl_access",
                   acl({{1, 7}, {2, 7, 1}, {4, 7}, {16, 7}, {32, 7}})) ==
        acl({{1, 7}, {2, 7, 1}, {4, 7}, {16, 5}, {32, 0}}));
  CHECK(normalised(rules, "system.posix_acl_access", acl({{1, 7}, {4, 7}, {32, 7}})) ==
        acl({{1, 7}, {4, 5}, {32, 0}}));
  const std::string unmasked = acl({{1, 7}, {4, 7}, {32, 7}});
  CHECK(normalised(rules, "system.posix_acl_default", unmasked) == unmasked);
}

TEST_CASE("a malformed ACL is left alone") {
  const XattrRules rules(IdMap({{0, 1, 100}}), IdMap({{0, 1, 100}}), 0);
  const std::string whole = acl({{1, 7}, {2, 7, 5}});
  for (const std::string& value : {std::string(), std::string("\x02"), std::string("\x03\0\0\0", 4),
                                   whole.substr(0, 13), "\x01" + whole.substr(1)}) {
    CHECK(normalised(rules, "system.posix_acl_access", value) == value);
  }
}
