// What a launch's arguments must be: checked here once, because XLA checks on each worker by itself,
// when others may already be inside the program.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/wire/ifrt_sharding.h"

namespace causeway::controller {
namespace {

std::string TypeText(model::DType dtype, const model::Shape& shape) {
  return absl::StrCat(model::DTypeName(dtype), "[", absl::StrJoin(shape, ","), "]");
}

// The first argument before `end` that shares memory with argument `index`, itself excepted.
size_t FirstUse(absl::Span<const BufferRef> args, size_t index, size_t end) {
  for (size_t i = 0; i < end; ++i) {
    if (i != index && args[i]->mark.SharedWith(args[index]->mark)) return i;
  }
  return index;
}

}  // namespace

absl::Status Controller::BindParameters(Binding& binding) {
  const core::ProgramInfo& info = *binding.program->info;
  if (!info.parameters.has_value()) return absl::OkStatus();
  const auto& shardings = info.parameter_shardings;
  std::vector<Parameter> parameters;
  for (size_t i = 0; i < info.parameters->size(); ++i) {
    const model::ArrayType& type = (*info.parameters)[i];
    Parameter parameter{type.dtype, type.shape, {}, nullptr};
    if (binding.list->devices.size() > 1 && shardings.has_value() && i < shardings->size()) {
      ASSIGN_OR_RETURN(model::OpSharding op, wire::ParseOpSharding((*shardings)[i]));
      ASSIGN_OR_RETURN(model::ShardingRef sharding,
                       model::Sharding::Hlo(binding.list->devices, "", std::move(op)));
      ASSIGN_OR_RETURN(parameter.tile, sharding->TileShape(type.shape));
    }
    parameters.push_back(std::move(parameter));
  }
  binding.parameters = std::move(parameters);
  return absl::OkStatus();
}

absl::Status Controller::CheckArgument(Binding& binding, size_t index,
                                       const core::ArraySpec& spec) {
  if (!binding.parameters.has_value()) return absl::OkStatus();
  Parameter& parameter = (*binding.parameters)[index];
  // For a token, which has no value, clients give an empty array of bools.
  if (parameter.dtype == model::DType::kToken) return absl::OkStatus();
  if (spec.dtype == parameter.dtype && spec.sharding == parameter.fits_sharding &&
      spec.shape == parameter.fits_shape) {
    return absl::OkStatus();
  }
  const auto misfit = [&](const model::Shape& shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        "argument ", index, " of ", binding.program->info->name, " is ",
        TypeText(spec.dtype, shape), " on each device, but the program takes ",
        TypeText(parameter.dtype, parameter.tile),
        "; give it an array of the type and the sharding that it was compiled for"));
  };
  ASSIGN_OR_RETURN(const model::Shape tile, spec.sharding->TileShape(spec.shape));
  if (spec.dtype != parameter.dtype || tile != parameter.tile) return misfit(tile);
  if (!spec.sharding->Even(spec.shape)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "argument ", index, " of ", binding.program->info->name, " is ",
        TypeText(spec.dtype, spec.shape), " and its sharding does not divide it evenly; pad it"));
  }
  parameter.fits_shape = spec.shape;
  parameter.fits_sharding = spec.sharding;
  return absl::OkStatus();
}

absl::Status Controller::MarkDonations(const Binding& binding,
                                       const core::ExecuteRequest& request,
                                       absl::Span<const BufferRef> args,
                                       absl::InlinedVector<int, 4>* protect) {
  absl::InlinedVector<size_t, 16> taken;
  const auto refuse = [&](absl::string_view what, size_t index, size_t first) {
    for (const size_t i : taken) args[i]->mark.Set(false);
    return absl::InvalidArgumentError(absl::StrCat(
        "Attempt to ", what, " in the same call to Execute() (flattened argument ", index,
        ", first use: ", first, " of ", binding.program->info->name, "); pass a copy"));
  };
  for (const int donated : binding.program->info->donated_inputs) {
    if (donated < 0 || static_cast<size_t>(donated) >= args.size()) continue;
    const size_t i = static_cast<size_t>(donated);
    if (std::find(request.non_donatable.begin(), request.non_donatable.end(), donated) !=
        request.non_donatable.end()) {
      protect->push_back(donated);
      continue;
    }
    if (args[i]->deleted()) {
      return refuse("donate the same buffer twice", i, FirstUse(args, i, i));
    }
    args[i]->mark.Set(true);
    taken.push_back(i);
  }
  if (taken.empty()) return absl::OkStatus();
  size_t next = 0;  // in `taken`, which is in growing order
  for (size_t i = 0; i < args.size(); ++i) {
    if (next < taken.size() && taken[next] == i) {
      ++next;
    } else if (args[i]->deleted()) {
      const size_t first = FirstUse(args, i, args.size());
      return refuse(first < i ? "use a buffer that was previously donated"
                              : "donate a buffer which is also used",
                    i, first);
    }
  }
  return absl::OkStatus();
}

}  // namespace causeway::controller
