#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.
#
# Keeps a piece of an order that is too large for one call. The launcher joins
# the pieces.
#
# Arguments: id, name of the pieces, number, the piece in base64.

$id, $name, $number, $piece = $order.args
[void][IO.Directory]::CreateDirectory($directory)
if (-not (New-Lock (Join-Path $directory "$id.in.$name.$number") $piece)) {
    Send-Answer @{ says = 'refused'; reason = $directory }
}
Send-Answer @{ says = 'kept' }
