// Parser of the fake programs' language.
#include "causeway/device/fake_program.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "causeway/base/status_macros.h"

namespace causeway::device {
namespace {

using Words = std::vector<std::string>;

struct OpName {
  const char* name;
  FakeInstruction::Op op;
  int words;  // with the name; -1 = any number from 3
};
constexpr OpName kOps[] = {
    {"add", FakeInstruction::Op::kAdd, 3},         {"mul", FakeInstruction::Op::kMul, 3},
    {"addc", FakeInstruction::Op::kAddConst, 3},   {"mulc", FakeInstruction::Op::kMulConst, 3},
    {"const", FakeInstruction::Op::kConst, 3},     {"sum", FakeInstruction::Op::kSum, 2},
    {"psum", FakeInstruction::Op::kPsum, 2},       {"fail", FakeInstruction::Op::kFail, -1},
    {"failend", FakeInstruction::Op::kFailAtEnd, -1},
};

absl::StatusCode CodeOf(const std::string& name) {
  for (int code = 0; code <= 16; ++code) {
    const auto c = static_cast<absl::StatusCode>(code);
    if (absl::StatusCodeToString(c) == name) return c;
  }
  return absl::StatusCode::kUnknown;
}

int32_t DTypeOf(const std::string& name) {
  return name == "f32" ? 11 : name == "f64" ? 12 : name == "s32" ? 4 : 0;
}

bool ParseOut(const Words& words, FakeProgram* program) {
  if (words.size() != 3) return false;
  const size_t open = words[1].find('[');
  if (open == std::string::npos || words[1].back() != ']') return false;
  ArrayType type;
  type.dtype = DTypeOf(words[1].substr(0, open));
  const std::string inside = words[1].substr(open + 1, words[1].size() - open - 2);
  for (absl::string_view dim : absl::StrSplit(inside, ',', absl::SkipWhitespace())) {
    int64_t value = 0;
    if (!absl::SimpleAtoi(dim, &value)) return false;
    type.dims.push_back(value);
  }
  int value = 0;
  if (type.dtype == 0 || !absl::SimpleAtoi(words[2], &value)) return false;
  program->output_types.push_back(std::move(type));
  program->output_values.push_back(value);
  return true;
}

bool ParseInstruction(const OpName& op, const Words& words, FakeProgram* program) {
  if (op.words > 0 ? static_cast<int>(words.size()) != op.words : words.size() < 3) return false;
  FakeInstruction i;
  i.op = op.op;
  const int values = program->num_inputs + static_cast<int>(program->body.size());
  auto operand = [values](const std::string& word, int* out) {
    return absl::SimpleAtoi(word, out) && *out >= 0 && *out < values;
  };
  bool good = true;
  switch (op.op) {
    case FakeInstruction::Op::kAdd:
    case FakeInstruction::Op::kMul:
      good = operand(words[1], &i.a) && operand(words[2], &i.b);
      break;
    case FakeInstruction::Op::kAddConst:
    case FakeInstruction::Op::kMulConst:
      good = operand(words[1], &i.a) && absl::SimpleAtod(words[2], &i.constant);
      break;
    case FakeInstruction::Op::kConst:
      good = absl::SimpleAtod(words[1], &i.constant) && absl::SimpleAtoi(words[2], &i.count);
      break;
    case FakeInstruction::Op::kSum:
    case FakeInstruction::Op::kPsum:
      good = operand(words[1], &i.a);
      break;
    case FakeInstruction::Op::kFailAtEnd:
      good = values > 0;
      [[fallthrough]];
    case FakeInstruction::Op::kFail:
      i.error = absl::Status(CodeOf(words[1]),
                             absl::StrJoin(words.begin() + 2, words.end(), " "));
      break;
  }
  if (good) program->body.push_back(std::move(i));
  return good;
}

bool ParseStatement(const Words& words, FakeProgram* program) {
  int number = 0;
  if (words[0] == "fake") {
    program->name = words.size() > 1 ? words[1] : "";
    return words.size() == 2;
  }
  if (words[0] == "inputs") {
    return words.size() == 2 && absl::SimpleAtoi(words[1], &program->num_inputs);
  }
  if (words[0] == "donate") {
    if (words.size() != 2 || !absl::SimpleAtoi(words[1], &number)) return false;
    program->donated.push_back(number);
    return number >= 0 && number < program->num_inputs;
  }
  if (words[0] == "out") return ParseOut(words, program);
  for (const OpName& op : kOps) {
    if (words[0] == op.name) return ParseInstruction(op, words, program);
  }
  return false;
}

}  // namespace

absl::StatusOr<FakeProgram> ParseFakeProgram(absl::string_view text) {
  FakeProgram program;
  bool first = true;
  for (absl::string_view line : absl::StrSplit(text, absl::ByAnyChar(";\n"))) {
    const Words words = absl::StrSplit(absl::StripAsciiWhitespace(line), ' ', absl::SkipEmpty());
    if (words.empty()) continue;
    if ((first && words[0] != "fake") || !ParseStatement(words, &program)) {
      return absl::InvalidArgumentError(
          absl::StrCat("not a statement of a fake program: '", std::string(line), "'"));
    }
    first = false;
  }
  if (first) return absl::InvalidArgumentError("a fake program has to start with 'fake NAME'");
  const int values = program.num_inputs + static_cast<int>(program.body.size());
  for (const int value : program.output_values) {
    if (value < 0 || value >= values) {
      return absl::InvalidArgumentError(absl::StrCat("there is no value ", value, " to show"));
    }
  }
  return program;
}

}  // namespace causeway::device
