// SPDX-License-Identifier: BSD-3-Clause
//
// The names are those of systemd's Discoverable Partitions Specification and the short names of
// sfdisk; the GUIDs are compared with those of sfdisk in the tests. A type of one architecture is a
// row of its own; a name without one is completed.
#include "bootsect/partition_type.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>

namespace mkvirtfs::bootsect {
namespace {

/// An MBR has no such partitions.
constexpr int kNone = -1;

struct Row {
  std::string_view names;  // the first one is printed
  std::string_view guid;
  int mbr;
};

constexpr std::array kRows = std::to_array<Row>({
    // clang-format off
    {"linux linux-generic L", "0FC63DAF-8483-4772-8E79-3D69D8477DE4", 0x83},
    {"swap S", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", 0x82},
    {"home H", "933AC7E1-2EB4-4F13-B844-0E14E2AEF915", 0x83},
    {"srv", "3B8F8425-20E0-4F3B-907F-1A25A76F98E8", 0x83},
    {"var", "4D21B016-B534-45C2-A9FB-5C16E091FD2D", 0x83},
    {"tmp", "7EC6F557-3BC5-4ACA-B293-16EF5DF639D1", 0x83},
    {"user-home", "773F91EF-66D4-49B5-BD83-D683BF40AD16", 0x83},
    {"esp uefi U", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", 0xEF},
    {"xbootldr", "BC13C2FF-59E6-4262-A352-B275FD6F7172", 0xEA},
    {"raid R", "A19D880F-05FC-4D3B-A006-743F0F84911E", 0xFD},
    {"lvm V", "E6D6D379-F507-44C2-A23C-238F2A3DF928", 0x8E},
    {"bios-boot", "21686148-6449-6E6F-744E-656564454649", kNone},
    {"prep", "9E1A2D38-C612-4316-AA26-8B49521E5A8B", 0x41},
    {"fat32 basic-data", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", 0x0C},
    {"fat16", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", 0x0E},
    {"fat12", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", 0x01},
    {"ntfs exfat", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", 0x07},
    {"msr", "E3C9E316-0B5C-4DB8-817D-F92DF00215AE", kNone},
    {"freebsd-ufs", "516E7CB6-6ECF-11D6-8FF8-00022D09712B", 0xA5},
    {"root-alpha", "6523F8AE-3EB1-4E2A-A05A-18B695AE656F", 0x83},
    {"root-arc", "D27F46ED-2919-4CB8-BD25-9531F3C16534", 0x83},
    {"root-arm", "69DAD710-2CE4-4E3C-B16C-21A1D49ABED3", 0x83},
    {"root-arm64", "B921B045-1DF0-41C3-AF44-4C6F280D3FAE", 0x83},
    {"root-ia64", "993D8D3D-F80E-4225-855A-9DAF8ED7EA97", 0x83},
    {"root-loongarch64", "77055800-792C-4F94-B39A-98C91B762BB6", 0x83},
    {"root-mips-le", "37C58C8A-D913-4156-A25F-48B1B64E07F0", 0x83},
    {"root-mips64-le", "700BDA43-7A34-4507-B179-EEB93D7A7CA3", 0x83},
    {"root-ppc", "1DE3F1EF-FA98-47B5-8DCD-4A860A654D78", 0x83},
    {"root-ppc64", "912ADE1D-A839-4913-8964-A10EEE08FBD2", 0x83},
    {"root-ppc64-le", "C31C45E6-3F39-412E-80FB-4809C4980599", 0x83},
    {"root-riscv32", "60D5A7FE-8E7D-435C-B714-3DD8162144E1", 0x83},
    {"root-riscv64", "72EC70A6-CF74-40E6-BD49-4BDA08E8F224", 0x83},
    {"root-s390", "08A7ACEA-624C-4A20-91E8-6E0FA67D23F9", 0x83},
    {"root-s390x", "5EEAD9A9-FE09-4A1E-A1D7-520D00531306", 0x83},
    {"root-tilegx", "C50CDD70-3862-4CC3-90E1-809A8C93EE2C", 0x83},
    {"root-x86", "44479540-F297-41B2-9AF7-D131D5F0458A", 0x83},
    {"root-x86-64", "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", 0x83},
    {"usr-alpha", "E18CF08C-33EC-4C0D-8246-C6C6FB3DA024", 0x83},
    {"usr-arc", "7978A683-6316-4922-BBEE-38BFF5A2FECC", 0x83},
    {"usr-arm", "7D0359A3-02B3-4F0A-865C-654403E70625", 0x83},
    {"usr-arm64", "B0E01050-EE5F-4390-949A-9101B17104E9", 0x83},
    {"usr-ia64", "4301D2A6-4E3B-4B2A-BB94-9E0B2C4225EA", 0x83},
    {"usr-loongarch64", "E611C702-575C-4CBE-9A46-434FA0BF7E3F", 0x83},
    {"usr-mips-le", "0F4868E9-9952-4706-979F-3ED3A473E947", 0x83},
    {"usr-mips64-le", "C97C1F32-BA06-40B4-9F22-236061B08AA8", 0x83},
    {"usr-ppc", "7D14FEC5-CC71-415D-9D6C-06BF0B3C3EAF", 0x83},
    {"usr-ppc64", "2C9739E2-F068-46B3-9FD0-01C5A9AFBCCA", 0x83},
    {"usr-ppc64-le", "15BB03AF-77E7-4D4A-B12B-C0D084F7491C", 0x83},
    {"usr-riscv32", "B933FB22-5C3F-4F91-AF90-E2BB0FA50702", 0x83},
    {"usr-riscv64", "BEAEC34B-8442-439B-A40B-984381ED097D", 0x83},
    {"usr-s390", "CD0F869B-D0FB-4CA0-B141-9EA87CC78D66", 0x83},
    {"usr-s390x", "8A4F5770-50AA-4ED3-874A-99B710DB6FEA", 0x83},
    {"usr-tilegx", "55497029-C7C1-44CC-AA39-815ED1558630", 0x83},
    {"usr-x86", "75250D76-8CC6-458E-BD66-BD47CC81A812", 0x83},
    {"usr-x86-64", "8484680C-9521-48C6-9C11-B0720656F69E", 0x83},
    {"root-alpha-verity", "FC56D9E9-E6E5-4C06-BE32-E74407CE09A5", 0x83},
    {"root-arc-verity", "24B2D975-0F97-4521-AFA1-CD531E421B8D", 0x83},
    {"root-arm-verity", "7386CDF2-203C-47A9-A498-F2ECCE45A2D6", 0x83},
    {"root-arm64-verity", "DF3300CE-D69F-4C92-978C-9BFB0F38D820", 0x83},
    {"root-ia64-verity", "86ED10D5-B607-45BB-8957-D350F23D0571", 0x83},
    {"root-loongarch64-verity", "F3393B22-E9AF-4613-A948-9D3BFBD0C535", 0x83},
    {"root-mips-le-verity", "D7D150D2-2A04-4A33-8F12-16651205FF7B", 0x83},
    {"root-mips64-le-verity", "16B417F8-3E06-4F57-8DD2-9B5232F41AA6", 0x83},
    {"root-ppc-verity", "98CFE649-1588-46DC-B2F0-ADD147424925", 0x83},
    {"root-ppc64-verity", "9225A9A3-3C19-4D89-B4F6-EEFF88F17631", 0x83},
    {"root-ppc64-le-verity", "906BD944-4589-4AAE-A4E4-DD983917446A", 0x83},
    {"root-riscv32-verity", "AE0253BE-1167-4007-AC68-43926C14C5DE", 0x83},
    {"root-riscv64-verity", "B6ED5582-440B-4209-B8DA-5FF7C419EA3D", 0x83},
    {"root-s390-verity", "7AC63B47-B25C-463B-8DF8-B4A94E6C90E1", 0x83},
    {"root-s390x-verity", "B325BFBE-C7BE-4AB8-8357-139E652D2F6B", 0x83},
    {"root-tilegx-verity", "966061EC-28E4-4B2E-B4A5-1F0A825A1D84", 0x83},
    {"root-x86-verity", "D13C5D3B-B5D1-422A-B29F-9454FDC89D76", 0x83},
    {"root-x86-64-verity", "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5", 0x83},
    {"usr-alpha-verity", "8CCE0D25-C0D0-4A44-BD87-46331BF1DF67", 0x83},
    {"usr-arc-verity", "FCA0598C-D880-4591-8C16-4EDA05C7347C", 0x83},
    {"usr-arm-verity", "C215D751-7BCD-4649-BE90-6627490A4C05", 0x83},
    {"usr-arm64-verity", "6E11A4E7-FBCA-4DED-B9E9-E1A512BB664E", 0x83},
    {"usr-ia64-verity", "6A491E03-3BE7-4545-8E38-83320E0EA880", 0x83},
    {"usr-loongarch64-verity", "F46B2C26-59AE-48F0-9106-C50ED47F673D", 0x83},
    {"usr-mips-le-verity", "46B98D8D-B55C-4E8F-AAB3-37FCA7F80752", 0x83},
    {"usr-mips64-le-verity", "3C3D61FE-B5F3-414D-BB71-8739A694A4EF", 0x83},
    {"usr-ppc-verity", "DF765D00-270E-49E5-BC75-F47BB2118B09", 0x83},
    {"usr-ppc64-verity", "BDB528A5-A259-475F-A87D-DA53FA736A07", 0x83},
    {"usr-ppc64-le-verity", "EE2B9983-21E8-4153-86D9-B6901A54D1CE", 0x83},
    {"usr-riscv32-verity", "CB1EE4E3-8CD0-4136-A0A4-AA61A32E8730", 0x83},
    {"usr-riscv64-verity", "8F1056BE-9B05-47C4-81D6-BE53128E5B54", 0x83},
    {"usr-s390-verity", "B663C618-E7BC-4D6D-90AA-11B756BB1797", 0x83},
    {"usr-s390x-verity", "31741CC4-1A2A-4111-A581-E00B447D2D06", 0x83},
    {"usr-tilegx-verity", "2FB4BF56-07FA-42DA-8132-6B139F2026AE", 0x83},
    {"usr-x86-verity", "8F461B0D-14EE-4E81-9AA9-049B6FB97ABD", 0x83},
    {"usr-x86-64-verity", "77FF5F63-E7B6-4633-ACF4-1565B864C0E6", 0x83},
    {"root-alpha-verity-sig", "D46495B7-A053-414F-80F7-700C99921EF8", 0x83},
    {"root-arc-verity-sig", "143A70BA-CBD3-4F06-919F-6C05683A78BC", 0x83},
    {"root-arm-verity-sig", "42B0455F-EB11-491D-98D3-56145BA9D037", 0x83},
    {"root-arm64-verity-sig", "6DB69DE6-29F4-4758-A7A5-962190F00CE3", 0x83},
    {"root-ia64-verity-sig", "E98B36EE-32BA-4882-9B12-0CE14655F46A", 0x83},
    {"root-loongarch64-verity-sig", "5AFB67EB-ECC8-4F85-AE8E-AC1E7C50E7D0", 0x83},
    {"root-mips-le-verity-sig", "C919CC1F-4456-4EFF-918C-F75E94525CA5", 0x83},
    {"root-mips64-le-verity-sig", "904E58EF-5C65-4A31-9C57-6AF5FC7C5DE7", 0x83},
    {"root-ppc-verity-sig", "1B31B5AA-ADD9-463A-B2ED-BD467FC857E7", 0x83},
    {"root-ppc64-verity-sig", "F5E2C20C-45B2-4FFA-BCE9-2A60737E1AAF", 0x83},
    {"root-ppc64-le-verity-sig", "D4A236E7-E873-4C07-BF1D-BF6CF7F1C3C6", 0x83},
    {"root-riscv32-verity-sig", "3A112A75-8729-4380-B4CF-764D79934448", 0x83},
    {"root-riscv64-verity-sig", "EFE0F087-EA8D-4469-821A-4C2A96A8386A", 0x83},
    {"root-s390-verity-sig", "3482388E-4254-435A-A241-766A065F9960", 0x83},
    {"root-s390x-verity-sig", "C80187A5-73A3-491A-901A-017C3FA953E9", 0x83},
    {"root-tilegx-verity-sig", "B3671439-97B0-4A53-90F7-2D5A8F3AD47B", 0x83},
    {"root-x86-verity-sig", "5996FC05-109C-48DE-808B-23FA0830B676", 0x83},
    {"root-x86-64-verity-sig", "41092B05-9FC8-4523-994F-2DEF0408B176", 0x83},
    {"usr-alpha-verity-sig", "5C6E1C76-076A-457A-A0FE-F3B4CD21CE6E", 0x83},
    {"usr-arc-verity-sig", "94F9A9A1-9971-427A-A400-50CB297F0F35", 0x83},
    {"usr-arm-verity-sig", "D7FF812F-37D1-4902-A810-D76BA57B975A", 0x83},
    {"usr-arm64-verity-sig", "C23CE4FF-44BD-4B00-B2D4-B41B3419E02A", 0x83},
    {"usr-ia64-verity-sig", "8DE58BC2-2A43-460D-B14E-A76E4A17B47F", 0x83},
    {"usr-loongarch64-verity-sig", "B024F315-D330-444C-8461-44BBDE524E99", 0x83},
    {"usr-mips-le-verity-sig", "3E23CA0B-A4BC-4B4E-8087-5AB6A26AA8A9", 0x83},
    {"usr-mips64-le-verity-sig", "F2C2C7EE-ADCC-4351-B5C6-EE9816B66E16", 0x83},
    {"usr-ppc-verity-sig", "7007891D-D371-4A80-86A4-5CB875B9302E", 0x83},
    {"usr-ppc64-verity-sig", "0B888863-D7F8-4D9E-9766-239FCE4D58AF", 0x83},
    {"usr-ppc64-le-verity-sig", "C8BFBD1E-268E-4521-8BBA-BF314C399557", 0x83},
    {"usr-riscv32-verity-sig", "C3836A13-3137-45BA-B583-B16C50FE5EB4", 0x83},
    {"usr-riscv64-verity-sig", "D2F9000A-7A18-453F-B5CD-4D32F77A7B32", 0x83},
    {"usr-s390-verity-sig", "17440E4F-A8D0-467F-A46E-3912AE6EF2C5", 0x83},
    {"usr-s390x-verity-sig", "3F324816-667B-46AE-86EE-9B0C0C6C11B4", 0x83},
    {"usr-tilegx-verity-sig", "4EDE75E2-6CCC-4CC8-B9C7-70334B087510", 0x83},
    {"usr-x86-verity-sig", "974A71C0-DE41-43C3-BE5D-5C5CCD1AD2C0", 0x83},
    {"usr-x86-64-verity-sig", "E7BB33FB-06CF-4E81-8273-E543B413E2E2", 0x83},
    // clang-format on
});

struct ArchitectureRow {
  std::string_view name;     // as the specification has it
  std::string_view aliases;  // as uname(1) and container images have it
};

constexpr std::array kArchitectures = std::to_array<ArchitectureRow>({
    {"alpha", ""},
    {"arc", ""},
    {"arm", "armv7l armhf"},
    {"arm64", "aarch64"},
    {"ia64", ""},
    {"loongarch64", "loong64"},
    {"mips-le", "mipsle mipsel"},
    {"mips64-le", "mips64le mips64el"},
    {"ppc", "powerpc"},
    {"ppc64", ""},
    {"ppc64-le", "ppc64le ppc64el"},
    {"riscv32", ""},
    {"riscv64", ""},
    {"s390", ""},
    {"s390x", ""},
    {"tilegx", ""},
    {"x86", "386 i386 i486 i586 i686"},
    {"x86-64", "amd64 x86_64"},
});

bool has_word(std::string_view words, std::string_view word) noexcept {
  while (!words.empty()) {
    const std::size_t blank = words.find(' ');
    if (words.substr(0, blank) == word) return true;
    words = blank == words.npos ? std::string_view() : words.substr(blank + 1);
  }
  return false;
}

std::string_view first_word(std::string_view words) noexcept {
  return words.substr(0, words.find(' '));
}

PartitionType type_of(const Row& row) {
  const std::optional<Uuid> guid = parse_uuid(row.guid);
  assert(guid);
  PartitionType type{std::string(first_word(row.names)), guid, std::nullopt};
  if (row.mbr != kNone) type.mbr = static_cast<std::uint8_t>(row.mbr);
  return type;
}

std::optional<PartitionType> find_row(std::string_view name) {
  const auto found =
      std::ranges::find_if(kRows, [&](const Row& row) { return has_word(row.names, name); });
  if (found == kRows.end()) return std::nullopt;
  return type_of(*found);
}

/// "0x83" or "83".
std::optional<std::uint8_t> parse_mbr_type(std::string_view text) noexcept {
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  if (text.empty() || text.size() > 2) return std::nullopt;
  std::uint8_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  // An empty entry's type, and those of tables, are no partitions.
  const bool is_whole = error == std::errc() && end == text.data() + text.size();
  const bool is_taken =
      value == 0x00 || value == 0x05 || value == 0x0F || value == 0x85 || value == 0xEE;
  return is_whole && !is_taken ? std::optional(value) : std::nullopt;
}

/// "root-verity" with an architecture is "root-x86-64-verity".
std::string with_architecture(std::string_view name, std::string_view architecture) {
  const std::size_t dash = name.find('-');
  const std::string_view rest = dash == name.npos ? std::string_view() : name.substr(dash);
  return fmt::format("{}-{}{}", name.substr(0, dash), architecture, rest);
}

constexpr std::array<std::string_view, 6> kOfArchitecture = {
    "root", "usr", "root-verity", "usr-verity", "root-verity-sig", "usr-verity-sig"};

}  // namespace

std::optional<std::string_view> find_architecture(std::string_view name) noexcept {
  const auto found = std::ranges::find_if(kArchitectures, [&](const ArchitectureRow& row) {
    return row.name == name || has_word(row.aliases, name);
  });
  if (found == kArchitectures.end()) return std::nullopt;
  return found->name;
}

Result<PartitionType> find_partition_type(std::string_view name, std::string_view architecture) {
  const Setting setting{"type", std::string(name)};
  if (std::ranges::find(kOfArchitecture, name) != kOfArchitecture.end()) {
    const std::optional<std::string_view> known = find_architecture(architecture);
    if (!known) {
      return fail_option(setting,
                         architecture.empty() ? std::string("for which architecture is not known")
                                              : fmt::format("no such type for {}", architecture),
                         {{"type", std::string(name.substr(0, name.find('-'))) + "-x86-64"}});
    }
    if (auto type = find_row(with_architecture(name, *known))) return *std::move(type);
  }
  if (auto type = find_row(name)) return *std::move(type);
  if (const std::optional<Uuid> guid = parse_uuid(name)) {
    for (const Row& row : kRows) {
      if (parse_uuid(row.guid) == guid) return type_of(row);
    }
    return PartitionType{to_string(*guid), guid, std::nullopt};
  }
  if (const std::optional<std::uint8_t> byte = parse_mbr_type(name)) {
    PartitionType type{fmt::format("0x{:02x}", *byte), std::nullopt, byte};
    for (const Row& row : kRows) {
      if (row.mbr == *byte) {
        type.guid = parse_uuid(row.guid);
        break;
      }
    }
    return type;
  }
  std::string known;
  for (const Row& row : kRows) {
    if (row.names.starts_with("root-")) break;  // the rest are those of one architecture
    known += first_word(row.names);
    known += ", ";
  }
  return fail_option(setting,
                     fmt::format("not a type of partitions ({}root, usr, a GUID, or a byte "
                                 "such as 0x83)",
                                 known));
}

std::vector<PartitionType> all_partition_types() {
  std::vector<PartitionType> types;
  for (const Row& row : kRows) types.push_back(type_of(row));
  return types;
}

}  // namespace mkvirtfs::bootsect
